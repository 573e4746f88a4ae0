"""Makes the parts of the site that are not written by hand: a page for each scheme."""
