"""The door for programs and pages: HTTP on this machine. It translates words into calls and answers in JSON; docs/api.md."""
