"""Makes tables, figures and pages from results.

page.py, drawing.py                  the page, the tables and the figures of all reports
templates.py, markdown.py            fill templates and write Markdown; captions, needs and columns
                                     are YAML in ``templates``
length_*.py, extension_*.py          studies on text, and of longer contexts
panel_report.py                     studies on drawn examples
probe_figures.py, maps.py            figures of one trained model, and of all schemes
atlas_page.py, ledger_page.py,       pages of several studies
ladder_page.py, leaderboard_page.py,
learned_page.py
sources.py, trust.py                 the results that docs/ keeps, and how far to trust them
__main__.py                          writes what docs/ and README.md say of them:
*_tables.py, findings.py             tables and sentences
choosing_page.py                     the guide to choosing a scheme
croissant.py                         describes the data
technical_report.py, typst_words.py  the technical report, a PDF
"""

from experiments import require

require({"matplotlib": "matplotlib", "PIL": "pillow", "pandas": "pandas"})
