"""How tables start in a notebook."""

# Not every notebook has space between the columns of a table.
TABLE = '<table style="border-collapse: separate; border-spacing: 12px 2px">'
