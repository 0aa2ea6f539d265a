"""One file a method; a method is a curriculum, a list of stages."""
