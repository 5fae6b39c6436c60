//! Loads machine code. This is the only unsafe code of the crate: the engine checks that an artefact is of its own
//! version and configuration, but not that the instructions are those of its compiler, and runs them unchecked.
#![allow(unsafe_code)]

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compile::Compiled;

/// Loads a compiled component.
pub(crate) fn load(engine: &Engine, compiled: &Compiled) -> wasmtime::Result<Component> {
    // SAFETY: the bytes come from the engine's own serialization. A `Compiled` is only made by `crate::compile`: of
    // what the compiler wrote in this process, of what our own program wrote to the pipe of a child that this process
    // has started, or of a file whose MAC, under a key that only this node has, shows that this node has written it
    // from one of those.
    unsafe { Component::deserialize(engine, &compiled.artefact) }
}
