"""Sessions in files: for the processes of one host, with nothing but a folder.

`driver` has the two drivers, `work` the operations, `sessions` the files of a session, `tree` the folder and what can
be done in it, `locks` who may write, `due` when what may be removed.
"""

from coatcheck.drivers.filesystem.driver import AsyncFilesystemDriver, FilesystemDriver

__all__ = ["AsyncFilesystemDriver", "FilesystemDriver"]
