"""Makes tables, figures and pages from results.

``drawing.py`` and ``page.py`` are for every report. Studies on text (``length_``), of longer
contexts (``extension_``), of LongRoPE's searches (``search_``) and of drawn examples (``panel_``)
each have a report. The pages of the atlas, of the ledger, of the ladder and of the leaderboard, and
the page about choosing a scheme, have the results of several studies, and are filled into
``templates``. ``__main__.py`` writes what docs/ and README.md say of the results. Words and tables
that need no program, such as captions, are YAML in ``templates``.
"""

from experiments import require

require({"matplotlib": "matplotlib", "PIL": "pillow", "pandas": "pandas"})
