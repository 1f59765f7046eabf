"""Reads a page as a browser would, and holds what every page promises."""

import re
from html.parser import HTMLParser

NO_END = {"meta", "img"}


class PageReader(HTMLParser):
    """Collects elements, attributes, headings, captions and charts; what opens has to be closed."""

    def __init__(self):
        super().__init__()
        self.stack, self.elements, self.attributes = [], [], []
        self.headings, self.captions = [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in NO_END:
            self.stack.append(tag)
        if tag in ("h1", "h2"):
            self.headings.append("")
        if tag == "figcaption":
            self.captions.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] in ("h1", "h2"):
            self.headings[-1] += data
        if self.stack and self.stack[-1] == "figcaption":
            self.captions[-1] += data

    def values(self, tag, name):
        """What an attribute of all such elements says."""
        return [value for element, attribute, value in self.attributes if (element, attribute) == (tag, name)]


def check_page(text):
    """What a page holds; it is whole, asks for nothing else, and every chart says in a sentence what to see in it."""
    assert text.startswith("<!doctype html>")
    page = PageReader()
    page.feed(text)
    assert page.stack == []
    assert not re.search(r"https?://|@import|<link|url\((?!#)", re.sub(r"data:image[^\"]*", "", text))
    assert all(source.startswith("data:image/") for source in page.values("img", "src"))
    assert not page.values("script", "src")
    names = [value for _, attribute, value in page.attributes if attribute == "id"]
    assert len(names) == len(set(names))  # a chart's own would otherwise hide another's
    page.charts = re.findall("<svg.*?</svg>", text, re.DOTALL)
    figures = re.findall("<figure[^>]*>(?:(?!</figure>).)*?<svg.*?</figure>", text, re.DOTALL)
    assert len(page.charts) == len(figures)
    assert all(re.search(r"<figcaption>[A-Z][^<]+\.</figcaption>", figure) for figure in figures)
    return page
