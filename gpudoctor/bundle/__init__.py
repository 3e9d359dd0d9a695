"""A folder that holds what an offline machine needs: filled where there is a network, installed from where there is none.

``fetches`` says what a line of a page fetches (pure), ``prepare`` brings that into the folder by ``archives`` (apt) and ``wheels``
(pip), ``manifest`` says what the folder holds and whether it is whole, and ``serve`` teaches apt, pip, uv and wget to take
everything from it.

The folder is an archive of apt, in part: the lists as their makers signed them, and those packages that are asked for. So apt
checks signatures and hashes on the offline machine itself, with the keys of that machine.
"""
