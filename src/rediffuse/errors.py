"""One family of user errors: each names the value and the fix; the command line prints them in a paragraph and exits 2."""


class RediffuseError(Exception):
    """Something that the user can mend. The message names the thing, the value and the fix."""


class ConfigError(RediffuseError, ValueError):
    """A setting outside its range or at odds with another."""


class DataError(RediffuseError):
    """Images, labels or tables that cannot be used as they are."""


class ModelError(RediffuseError):
    """A model folder, checkpoint or token file that cannot be read, or that is not what was asked for."""


class PlanError(RediffuseError):
    """A generation run that would contradict what already lies in its folder."""
