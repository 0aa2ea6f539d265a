"""Names of array axes, and the aliases of arrays that many modules exchange; no torch here.

sample   images of one dataset, or of one batch
view     augmented versions of one image
class    outputs of one teacher, or of whatever the logits belong to
head     outputs of the student, where they are more than one teacher's classes
row      stored rows of logits: one for each (view, sample)
stage    levels of the school, in the order they are taught
subset   samples that one stage introduces
channel height width    of an image
"""

import numpy as np
from jaxtyping import Bool, Int64

SampleIds = Int64[np.ndarray, " sample"]
Views = Int64[np.ndarray, " sample"]
Offsets = Int64[np.ndarray, " sample"]
Flips = Bool[np.ndarray, " sample"]
Boxes = Int64[np.ndarray, "sample 4"]
