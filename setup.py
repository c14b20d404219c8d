"""What pyproject.toml cannot say: two files go straight into site-packages, with `pip install .` and `pip install -e .` alike."""

import os
import sys
import sysconfig

import setuptools

STARTUP = ["code/startup/progrpo_torchvision.pth", "code/startup/progrpo_torchvision.py"]  # the module says what for


class Distribution(setuptools.Distribution):
    """An editable install asks for `has_data`, which no distribution has, and would leave data files out."""

    has_data = setuptools.Distribution.has_data_files


site_packages = os.path.relpath(sysconfig.get_path("purelib"), sys.prefix)
setuptools.setup(distclass=Distribution, data_files=[(site_packages, STARTUP)])
