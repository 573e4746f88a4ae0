"""Trains models.

recipe.py, step.py         how a model is trained, and one step of it
parameters.py              what of a model is trained
loop.py, run.py            all steps across interruptions, and the files of one run
text.py                    the task of predicting the next token
data.py, windows.py        the corpora, and the windows that are read from them
packages                   a corpus of code and prose from the package index
mesh.py                    arrays on devices
checkpoint.py              train states on disk
cost.py, host.py           the operations of a step, and the memory of the host
"""
