"""Building blocks for what users see: escaped text, tables as text and HTML, numbers with units."""
