"""Where torch lives: networks, export of templates, and the trainer process."""
