//! Scenes of two and three nodes.
