"""The ESPnet layer, mirrored on espnet2/enh."""
