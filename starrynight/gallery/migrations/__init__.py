"""The steps by which a gallery's database came to be. A numbered step is never edited once it has been released."""
