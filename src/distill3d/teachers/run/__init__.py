"""The teacher pass: every view group through the teacher once, its labels into a cache; on one machine or on many.

`making` turns a batch of groups into bytes, `pipeline` and `ray` decide where and when, `job` writes what they bring.
"""

from distill3d.teachers.run.estimate import Estimate as Estimate
from distill3d.teachers.run.job import TeacherRun as TeacherRun
from distill3d.teachers.run.job import estimate_run as estimate_run
from distill3d.teachers.run.job import run_teacher as run_teacher
from distill3d.teachers.run.pipeline import pipelined as pipelined
