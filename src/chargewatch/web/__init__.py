"""Pages for people: Jinja templates, static files, charts."""
