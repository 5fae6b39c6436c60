//! Moves bytes: QUIC and TLS endpoints, certificates, frames and deadlines.
