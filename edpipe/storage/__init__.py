"""Files: written whole or not at all, with digests, refused when they do not fit."""
