//! What replicas of a group say to each other.
