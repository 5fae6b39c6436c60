//! Concurrent changes of one cart by two devices.

use anyhow::{Result, ensure};

use rejoin_client::Client;

use crate::service::{CartService, print};

/// Runs the tour on a new cart, so that it can be repeated.
pub(crate) async fn run(client: &Client, bucket: &str) -> Result<()> {
    let phone = CartService::new(client, bucket, "phone")?;
    let laptop = CartService::new(client, bucket, "laptop")?;
    let user = format!("tour-{:08x}", rand::random::<u32>());
    println!("A cart for {user}, changed by {} and {}.\n", phone.writer(), laptop.writer());

    concurrent_adds(&phone, &laptop, &user).await?;
    seen_remove(&phone, &laptop, &user).await?;
    concurrent_add_and_remove(&phone, &laptop, &user).await
}

/// Both add concurrently: nothing is lost.
async fn concurrent_adds(phone: &CartService, laptop: &CartService, user: &str) -> Result<()> {
    println!("1. The phone adds 3 apples while the laptop adds a pear.");
    let (on_phone, on_laptop) = tokio::join!(phone.add(user, "apples", 3), laptop.add(user, "pears", 1));
    on_phone?;
    on_laptop?;
    let cart = phone.show(user).await?;
    print(user, &cart);
    ensure!(
        quantities(&cart) == [("apples", 3), ("pears", 1)],
        "both were added, yet the cart holds {:?}",
        cart.items()
    );
    Ok(())
}

/// One removes an item that it has read: it stays removed.
async fn seen_remove(phone: &CartService, laptop: &CartService, user: &str) -> Result<()> {
    println!("\n2. The laptop removes the pear.");
    laptop.remove(user, "pears").await?;
    let cart = phone.show(user).await?;
    print(user, &cart);
    ensure!(quantities(&cart) == [("apples", 3)], "the pear was removed, yet the cart holds {:?}", cart.items());
    Ok(())
}

/// Both change the cart that they have read before either writes: the store keeps both, and the plugin merges them.
async fn concurrent_add_and_remove(phone: &CartService, laptop: &CartService, user: &str) -> Result<()> {
    println!("\n3. Both look at the cart; then the phone adds an apple, and the laptop removes the apples it saw.");
    let seen = phone.carts().get(user).await?;
    let base = seen.value.clone().unwrap_or_default();
    let (mut on_phone, mut on_laptop) = (base.clone(), base);
    on_phone.add(phone.writer(), "apples", 1);
    on_laptop.remove("apples");
    phone.carts().put(user, on_phone).context(&seen.context).await?;
    laptop.carts().put(user, on_laptop).context(&seen.context).await?;

    let object = phone.carts().get(user).siblings().await?;
    println!("   {} siblings were kept, and {} merged them.", object.siblings.len(), plugin(&object));
    let cart = object.into_value()?.unwrap_or_default();
    print(user, &cart);
    let why = "the add was not seen by the remove, so it stays, and only it";
    ensure!(quantities(&cart) == [("apples", 1)], "{why}; yet the cart holds {:?}", cart.items());
    println!("   The add that the laptop had not seen stays; the apples it saw are gone for good.");
    Ok(())
}

fn quantities(cart: &rejoin_plugin_cart::Cart) -> Vec<(&str, u64)> {
    cart.items().into_iter().collect()
}

fn plugin<V>(object: &rejoin_client::Object<V>) -> String {
    let Some(by) = &object.merged_by else { return "no plugin".into() };
    by.name.clone().unwrap_or_else(|| by.digest.chars().take(12).collect())
}
