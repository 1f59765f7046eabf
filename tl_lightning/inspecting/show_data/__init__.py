"""``tl show_data``: a page that shows what a model will see, before anything is trained."""
