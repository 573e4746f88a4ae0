"""Holds the studies: what is asked of encodings, with which models, data and measures.

text.py              losses on text, at the trained length and beyond
tasks/, multimodal/  answers about order, and about images, screens, videos and stories;
                     ``drawn_examples.py`` holds what these share
extension/           every method that makes a trained RoPE model longer
longrope/            the search for LongRoPE's factors
ladder.py            schemes on text again, trained longer, at other lengths and in other sizes
atlas.py, claims/    all schemes on all questions, and published claims, from the studies above;
                     ``combined.py`` runs several studies as one
kept.py              makes the tables and figures of docs/ from archives of finished runs
gallery.py           what each encoding does to attention before training; ``docstrings.py`` reads
                     what its docstring says
"""

from experiments import require

require({"matplotlib": "matplotlib", "PIL": "pillow", "jinja2": "jinja2"})
