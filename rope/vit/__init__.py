"""ViT, and what tells it where a patch is: the sizes (config), a table of kinds (positions), the functions (model)."""
