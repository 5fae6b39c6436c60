//! Laws and scenarios, natively and on the built component.
