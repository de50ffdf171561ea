// Small conveniences; every page works without them.
(function () {
  "use strict";

  // Keep addresses short: empty fields of a filter form say nothing.
  document.addEventListener("htmx:configRequest", function (event) {
    var parameters = event.detail.parameters;
    Object.keys(parameters).forEach(function (name) {
      if (parameters[name] === "" || (name === "sort" && parameters[name] === "priority")) {
        delete parameters[name];
      }
    });
  });

  // "/" goes to the search field, as in many lists.
  document.addEventListener("keydown", function (event) {
    var target = event.target;
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (target.matches && target.matches("input, select, textarea")) { return; }
    var search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  });

  // A fragment that fails (log-in ended, server away) becomes a whole page again.
  ["htmx:responseError", "htmx:sendError"].forEach(function (name) {
    document.addEventListener(name, function (event) {
      var form = event.detail.elt;
      if (form && form.tagName === "FORM") { form.submit(); }
    });
  });
})();
