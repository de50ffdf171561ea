"""The forms of a registry file: JSON, CSV and XLSX, as rows with their places."""
