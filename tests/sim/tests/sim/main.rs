//! What every run of CI simulates: two hundred seeds, and clusters that are made for one purpose.

mod busy;
mod liar;
mod members;
mod seeds;
mod tenants;
mod versions;
