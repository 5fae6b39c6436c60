//! The laws a merge must obey, generators that look for trouble, and a shrinker.
