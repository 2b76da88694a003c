"""The page of a reproduction: HTML in one file, Markdown, and a folder of figures, from finished runs."""
