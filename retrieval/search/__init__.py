"""An index of texts: built, added to, searched, served."""
