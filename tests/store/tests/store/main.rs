//! The store on the real disk, and on one in memory that crashes, fails, lies and is damaged. One binary, so that
//! all of it is linked once and runs side by side. `tree_faults` is another one, because it replaces functions of the C
//! library, and `writers` is one, because it starts processes.

mod audit;
mod basics;
mod corruption;
mod crashes;
mod damage;
mod data_dir;
mod encryption;
mod failures;
mod faults;
mod order;
mod reclaim;
mod scans;
mod size;
mod steps;
mod tables;
mod witnesses;
