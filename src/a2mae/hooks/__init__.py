"""What happens around every run: Kedro calls these, in the order of `settings.HOOKS`."""

from a2mae.hooks.chain import DefaultChain
from a2mae.hooks.environments import KnownEnvironment, UnknownEnvironmentError
from a2mae.hooks.groups import KnownGroups
from a2mae.hooks.inputs import MadeInputs, MissingInputError
from a2mae.hooks.lineage import Lineage
from a2mae.hooks.named_files import NamedFileError, NamedFiles
from a2mae.hooks.outputs import OutputFolderError, WritableOutputs
from a2mae.hooks.watch import Watch

__all__ = [
    "DefaultChain",
    "KnownEnvironment",
    "KnownGroups",
    "Lineage",
    "MadeInputs",
    "MissingInputError",
    "NamedFileError",
    "NamedFiles",
    "OutputFolderError",
    "UnknownEnvironmentError",
    "Watch",
    "WritableOutputs",
]
