"""Whom a run owes its solver to, in BibTeX."""

from __future__ import annotations

from collections.abc import Mapping

from rediffuse.sampling.solvers import Solver

CITATIONS: Mapping[Solver, str] = {
    "ddim": """@inproceedings{song2021denoising,
  title = {Denoising Diffusion Implicit Models},
  author = {Song, Jiaming and Meng, Chenlin and Ermon, Stefano},
  booktitle = {International Conference on Learning Representations},
  year = {2021},
  eprint = {2010.02502},
  archivePrefix = {arXiv}
}""",
    "dpm++2m": """@article{lu2022dpmsolverpp,
  title = {{DPM-Solver++}: Fast Solver for Guided Sampling of Diffusion Probabilistic Models},
  author = {Lu, Cheng and Zhou, Yuhao and Bao, Fan and Chen, Jianfei and Li, Chongxuan and Zhu, Jun},
  year = {2022},
  eprint = {2211.01095},
  archivePrefix = {arXiv}
}""",
    "pndm": """@inproceedings{liu2022pseudo,
  title = {Pseudo Numerical Methods for Diffusion Models on Manifolds},
  author = {Liu, Luping and Ren, Yi and Lin, Zhijie and Zhao, Zhou},
  booktitle = {International Conference on Learning Representations},
  year = {2022},
  eprint = {2202.09778},
  archivePrefix = {arXiv}
}""",
    "ancestral": """@inproceedings{ho2020denoising,
  title = {Denoising Diffusion Probabilistic Models},
  author = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020},
  eprint = {2006.11239},
  archivePrefix = {arXiv}
}""",
}
