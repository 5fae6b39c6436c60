//! Merges of whole values, which a client writes blind: the plugin chooses among what was written at once.

use anyhow::{Result, ensure};

use rejoin_client::{Bytes, Client};

/// A cached page, of which any recent copy will do: `rejoin bucket create pages --merge last-writer`.
pub(crate) async fn last_writer(client: &Client, key: &str) -> Result<()> {
    let pages = client.bucket::<Bytes>("pages")?;
    for page in ["<p>first</p>", "<p>last</p>"] {
        pages.put(key, page.as_bytes().to_vec()).blind().w(3).await?;
    }
    let page = pages.get(key).await?.into_value()?.unwrap_or_default();
    println!("last-writer: of two writes without a context the last one is read: {}", String::from_utf8_lossy(&page));
    ensure!(!page.is_empty(), "one of the two pages is there");
    Ok(())
}

/// The highest version that anyone has seen: `rejoin bucket create versions --merge max`.
pub(crate) async fn max(client: &Client, key: &str) -> Result<()> {
    let versions = client.bucket::<Bytes>("versions")?;
    for version in ["9", "12", "7"] {
        versions.put(key, version.as_bytes().to_vec()).blind().w(3).await?;
    }
    let highest = versions.get(key).await?.into_value()?.unwrap_or_default();
    println!("max: of 9, 12 and 7 written in any order: {}", String::from_utf8_lossy(&highest));
    ensure!(highest == b"12", "the largest number wins");
    Ok(())
}
