"""ESPnet tasks. ESPnet is imported here, before any module of this package asks for a part of it."""

from espnet2_m2m.espnet_imports import import_espnet

import_espnet("espnet2.tasks.enh")
