//! Data types with operations.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use rejoin_client::{Bucket, Bytes, Client};

/// The answer to a question, as JSON. Three replicas are asked, so that all of them have what was acknowledged.
async fn ask(bucket: &Bucket<Bytes>, key: &str, question: Value) -> Result<Value> {
    let answer = bucket.query(key, question.to_string()).r(3).await?.context("the key has no value")?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Visits of a page, counted by many servers at once: `rejoin bucket create visits --merge counter`.
pub(crate) async fn counter(client: &Client, key: &str) -> Result<()> {
    let visits = client.bucket::<Bytes>("visits")?;
    let (one, two) = tokio::join!(visits.apply(key, "1").w(3), visits.apply(key, "2").w(3));
    one?;
    two?;
    visits.apply(key, "-1").w(3).await?;
    let total = ask(&visits, key, json!("total")).await?;
    println!("counter: 1 and 2 at once, then -1: {total}");
    ensure!(total == 2, "each increment counts once, yet the total is {total}");
    Ok(())
}

/// The tags of an article: `rejoin bucket create tags --merge set`.
pub(crate) async fn set(client: &Client, key: &str) -> Result<()> {
    let tags = client.bucket::<Bytes>("tags")?;
    let (one, two) = (json!({"add": ["rust", "draft"]}).to_string(), json!({"add": ["merge"]}).to_string());
    let (one, two) = tokio::join!(tags.apply(key, one).w(3), tags.apply(key, two).w(3));
    one?;
    two?;
    tags.apply(key, json!({"remove": ["draft"]}).to_string()).w(3).await?;
    let all = ask(&tags, key, json!("items")).await?;
    println!("set: two editors add tags at once, one removes a tag: {all}");
    ensure!(all == json!(["merge", "rust"]), "what was added stays, and what was removed does not come back: {all}");
    ensure!(ask(&tags, key, json!({"has": "draft"})).await? == json!(false), "draft was removed");
    Ok(())
}

/// The details of a file, which several services fill in: `rejoin bucket create files --merge metadata`.
pub(crate) async fn metadata(client: &Client, key: &str) -> Result<()> {
    let files = client.bucket::<Bytes>("files")?;
    let (title, pages) = (json!({"set": {"title": "Minutes"}}).to_string(), json!({"set": {"pages": 3}}).to_string());
    let (title, pages) = tokio::join!(files.apply(key, title).w(3), files.apply(key, pages).w(3));
    title?;
    pages?;
    files.apply(key, json!({"set": {"title": "Minutes of May"}}).to_string()).w(3).await?;
    let fields = ask(&files, key, json!("fields")).await?;
    println!("metadata: two services write different fields at once: {fields}");
    ensure!(fields == json!({"title": "Minutes of May", "pages": 3}), "fields do not compete: {fields}");
    Ok(())
}

/// The best players of a game: `rejoin bucket create scores --merge leaderboard`.
pub(crate) async fn leaderboard(client: &Client, key: &str) -> Result<()> {
    let scores = client.bucket::<Bytes>("scores")?;
    for (player, score) in [("ann", 90), ("bob", 120), ("cy", 95), ("ann", 100)] {
        let submit = json!({"player": player, "score": score, "top": 2});
        scores.apply(key, submit.to_string()).w(3).await?;
    }
    let board = ask(&scores, key, json!("board")).await?;
    println!("leaderboard: the two best of three players: {board}");
    let best = json!([{"player": "bob", "score": 120}, {"player": "ann", "score": 100}]);
    ensure!(board == best, "the best score of each player, and of them the two best: {board}");
    Ok(())
}
