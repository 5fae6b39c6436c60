//! The store in processes that are killed, and that are two at once. A binary of its own: a process that is being
//! started has all files of its parent for a moment, locks included, and other tests open one directory again and
//! again.

mod copies;
mod killed;
