"""Course labs: one source notebook each, from which come the student's copy, the page of solutions and the hidden tests; and grading.

`source` reads and splits a lab, `checks` is what its cells import, `sandbox` and `worker` run what students hand in, `grading` gives
marks, `gradescope` and `course` carry labs to other graders.
"""

from .checks import mistaken, near
from .source import Lab, find_labs, read_lab

__all__ = ["Lab", "find_labs", "mistaken", "near", "read_lab"]
