"""The charts, as data that a page, a picture and a notebook draw alike."""
