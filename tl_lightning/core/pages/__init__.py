"""Pages for people: plain data in, one HTML file out that needs nothing else.

`page` holds the parts that a page may have and ``page.html``, the one template, how each looks. Charts are
matplotlib's SVG, drawn by `tl_lightning.core.plots` and put into the page as it is. Why not plotly, Bokeh or Vega,
whose charts can be zoomed: a page that needs no network would carry the library with it, 4 to 5 MB of JavaScript with
plotly, in every folder of a sweep or a comparison; it shows nothing where scripts are off, as in a mail or on a
notebook server; and it brings its own colours, which are those of the screen neither in the dark nor on paper. An SVG
takes 10 to 100 KB, has the page's own text colour, prints, and matplotlib draws the PNG files too. What interaction
is for, to find the trial behind a dot, a link to its row does.
"""
