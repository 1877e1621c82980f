//! Every way in which a list or the resolver can fail, and what it costs a client.

use std::time::Instant;

use super::*;

/// Sends clients until the list stands so.
async fn drive_until(what: &str, dnsbl: &Dnsbl, holds: impl Fn(&Dnsbl) -> bool) {
    for number in 0..2000_u32 {
        if holds(dnsbl) {
            return;
        }
        let client = std::net::Ipv4Addr::from_bits(0xcb00_7100 + number);
        let mut check = dnsbl.start(client.into());
        check.everything().await;
    }
    panic!("{what}: {:?}", dnsbl.status());
}

#[tokio::test]
async fn a_list_that_fails_or_is_silent_counts_for_nothing_and_delays_no_other() {
    let server = Scripted::start(&["good.test", "failing.test", "refusing.test", "silent.test"]).unwrap();
    server.list("good.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.fail("failing.test", Fault::Code(2));
    server.fail("refusing.test", Fault::Code(5));
    server.fail("silent.test", Fault::Drop);
    let zones = ["good.test", "failing.test", "refusing.test", "silent.test"];
    let lists: String = zones.iter().map(|zone| list(zone, 2)).collect();
    let dnsbl = dnsbl(&lists, server.address());
    let mut check = dnsbl.start("203.0.113.5".parse().unwrap());
    let early = loop {
        let report = timeout(Duration::from_secs(1), check.next_report()).await.expect("soon").unwrap();
        if !report.hits.is_empty() {
            break report;
        }
    };
    assert!(!early.complete, "the silent list is still awaited");
    assert_eq!((early.score, early.lowest), (2, 2));
    let last = check.everything().await;
    assert_eq!((last.score, last.unknown.len()), (2, 3));
    for zone in zones {
        let status = status_of(&dnsbl, zone);
        let unknown = u64::from(zone != "good.test");
        assert_eq!((status.questions, status.unknown, status.errors), (1, unknown, 0), "{status:?}");
        assert_eq!(status.last_error.is_some(), unknown == 1, "{status:?}");
    }
}

#[tokio::test]
async fn a_failure_is_remembered_briefly_and_longer_each_time() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.fail("bl.test", Fault::Code(2));
    let dnsbl = dnsbl(&list("bl.test", 2), server.address());
    for _ in 0..3 {
        assert_eq!(report(&dnsbl, "203.0.113.5").await.unknown.len(), 1);
    }
    // hickory asks twice; our cache keeps the rest away.
    assert_eq!(status_of(&dnsbl, "bl.test").questions, 1);
    assert!(server.asked("bl.test", "203.0.113.5") <= 2);
}

#[tokio::test]
async fn an_answer_that_is_no_listing_is_never_taken_for_one_and_the_list_is_left_alone() {
    for lie in [[127, 255, 255, 254], [127, 0, 0, 1], [10, 0, 0, 1], [127, 255, 255, 1]] {
        let server = Scripted::start(&["bl.test"]).unwrap();
        server.list("bl.test", "203.0.113.5", &[lie, [127, 0, 0, 2]]);
        server.list("bl.test", "203.0.113.6", &[[127, 0, 0, 2]]);
        let dnsbl = dnsbl(&list("bl.test", 5), server.address());
        let first = report(&dnsbl, "203.0.113.5").await;
        assert_eq!((first.score, first.unknown.len(), first.hits.len()), (0, 1, 0), "{lie:?}");
        let second = report(&dnsbl, "203.0.113.6").await;
        assert_eq!((second.score, second.unknown.len()), (0, 1), "{lie:?}");
        let status = status_of(&dnsbl, "bl.test");
        assert_eq!((status.questions, status.errors, status.hits, status.state), (1, 1, 0, "parked"));
        assert!(status.last_error.is_some());
    }
}

#[tokio::test]
async fn an_allow_list_cannot_let_in_by_an_error_code() {
    for code in [[127, 0, 0, 255], [127, 0, 10, 3]] {
        let server = Scripted::start(&["wl.test"]).unwrap();
        server.list("wl.test", "203.0.113.5", &[code]);
        let dnsbl = dnsbl(&list("wl.test", -5), server.address());
        let said = report(&dnsbl, "203.0.113.5").await;
        assert_eq!((said.score, said.unknown.len()), (0, 1), "{code:?}");
        // One host may be in 127.0.10.3 rightly.
        let parked = status_of(&dnsbl, "wl.test").state == "parked";
        assert_eq!(parked, code[3] == 255);
    }
}

#[tokio::test]
async fn a_list_that_fails_its_test_points_at_the_start_is_believed_by_nobody() {
    for (fault, why) in [
        (Fault::Everything([127, 0, 0, 2].into()), "lists_the_world"),
        (Fault::Everything([192, 0, 2, 80].into()), "lists_the_world"),
        (Fault::Everything([127, 255, 255, 254].into()), "bad_answer"),
        (Fault::Nothing, "empty"),
        (Fault::Code(5), "refused"),
    ] {
        let server = Scripted::start(&["bl.test", "good.test"]).unwrap();
        server.list("good.test", "203.0.113.5", &[[127, 0, 0, 2]]);
        server.fail("bl.test", fault);
        let dnsbl = dnsbl(&(list("bl.test", 5) + &list("good.test", 1)), server.address());
        let end = CancellationToken::new();
        dnsbl.watch(&end);
        // At once: the answer is there before the test points are, and waits for them.
        let said = report(&dnsbl, "203.0.113.5").await;
        assert_eq!((said.score, said.unknown.len()), (1, 1), "{fault:?}: {said:?}");
        until("the list to be parked", &dnsbl, |dnsbl| status_of(dnsbl, "bl.test").state == "parked").await;
        assert_eq!(status_of(&dnsbl, "bl.test").why.unwrap().0, why, "{fault:?}");
        assert_eq!(status_of(&dnsbl, "good.test").state, "asked");
        end.cancel();
    }
}

#[tokio::test]
async fn an_allow_list_that_allows_everybody_is_parked() {
    let server = Scripted::start(&["wl.test"]).unwrap();
    server.fail("wl.test", Fault::Everything([127, 0, 10, 3].into()));
    let dnsbl = dnsbl(&list("wl.test", -5), server.address());
    dnsbl.watch(&CancellationToken::new());
    assert_eq!(report(&dnsbl, "203.0.113.5").await.score, 0);
    until("the list to be parked", &dnsbl, |dnsbl| status_of(dnsbl, "wl.test").state == "parked").await;
}

#[tokio::test]
async fn a_list_without_ipv6_is_asked_about_ipv4_only() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.unlist("bl.test", "::ffff:127.0.0.2");
    let dnsbl = dnsbl(&list("bl.test", 5), server.address());
    dnsbl.watch(&CancellationToken::new());
    until("the test", &dnsbl, |dnsbl| status_of(dnsbl, "bl.test").ipv4_only).await;
    assert_eq!(status_of(&dnsbl, "bl.test").state, "asked");
    let report = report(&dnsbl, "2001:db8::5").await;
    assert!(report.complete && report.unknown.is_empty());
    assert_eq!(server.asked("bl.test", "2001:db8::5"), 0);
}

#[tokio::test]
async fn a_client_that_comes_before_the_first_test_is_not_judged_by_a_list_without_its_family() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.unlist("bl.test", "::ffff:127.0.0.2");
    server.list("bl.test", "2001:db8::5", &[[127, 0, 0, 2]]);
    let dnsbl = dnsbl(&list("bl.test", 5), server.address());
    dnsbl.watch(&CancellationToken::new());
    let said = report(&dnsbl, "2001:db8::5").await;
    assert!(said.hits.is_empty() && said.unknown.is_empty(), "{said:?}");
}

#[tokio::test]
async fn a_first_test_without_an_answer_makes_no_list_a_good_one() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.fail("bl.test", Fault::Code(2));
    let dnsbl = dnsbl(&list("bl.test", 5), server.address());
    let watched = &dnsbl.lists[0];
    watched.zone.distrust();
    watched.test(&dnsbl.shared).await;
    // The resolver has found its feet, and the list turns out to be dead.
    server.fail("bl.test", Fault::Everything([127, 0, 0, 2].into()));
    let mut check = dnsbl.start("203.0.113.5".parse().unwrap());
    until("the answer", &dnsbl, |_| server.asked("bl.test", "203.0.113.5") == 1).await;
    watched.test(&dnsbl.shared).await;
    let said = check.everything().await;
    assert_eq!((said.score, said.unknown.len()), (0, 1), "{said:?}");
    assert_eq!(status_of(&dnsbl, "bl.test").state, "parked");
}

#[tokio::test]
async fn a_list_whose_test_points_alone_are_silent_is_believed_after_some_tests() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.fail("bl.test", Fault::Code(2));
    let dnsbl = dnsbl(&(list("bl.test", 5) + "families = [\"ipv4\"]\n"), server.address());
    dnsbl.watch(&CancellationToken::new());
    // Three questions a test; the next one comes soon.
    until("three tests", &dnsbl, |dnsbl| server.questions("bl.test") >= 9 && dnsbl.lists[0].zone.is_tested()).await;
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.fail("bl.test", Fault::None);
    assert_eq!(report(&dnsbl, "203.0.113.5").await.score, 5);
}

#[tokio::test]
async fn a_wildcard_that_only_ipv6_names_meet_does_not_cost_a_list_its_ipv4() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.list("bl.test", "::ffff:127.0.0.1", &[[127, 0, 0, 2]]);
    let dnsbl = dnsbl(&list("bl.test", 5), server.address());
    dnsbl.watch(&CancellationToken::new());
    until("the test", &dnsbl, |dnsbl| status_of(dnsbl, "bl.test").ipv4_only).await;
    assert_eq!(status_of(&dnsbl, "bl.test").state, "asked");
    assert_eq!(report(&dnsbl, "203.0.113.5").await.score, 5);
    let said = report(&dnsbl, "2001:db8::5").await;
    assert!(said.complete && said.hits.is_empty() && server.asked("bl.test", "2001:db8::5") == 0, "{said:?}");
}

#[tokio::test]
async fn an_answer_without_end_is_none() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    let flood: Vec<_> = (2..100).map(|last| [127, 0, 0, last]).collect();
    server.list("bl.test", "203.0.113.5", &flood);
    server.list("bl.test", "203.0.113.6", &flood[..10]);
    let dnsbl = dnsbl(&list("bl.test", 5), server.address());
    let said = report(&dnsbl, "203.0.113.5").await;
    assert_eq!((said.score, said.unknown.len()), (0, 1), "{said:?}");
    assert_eq!(report(&dnsbl, "203.0.113.6").await.score, 5);
}

/// As when a reload takes it out of the configuration at that moment. The clock is the test's: nobody really waits.
#[tokio::test(start_paused = true)]
async fn a_list_whose_first_test_never_ends_keeps_nobody_for_ever() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dnsbl = dnsbl(&list("bl.test", 5), nobody.local_addr().unwrap());
    dnsbl.lists[0].zone.distrust();
    let said = everything(&dnsbl, "203.0.113.5").await;
    assert_eq!((said.score, said.unknown.len()), (0, 1), "{said:?}");
}

#[tokio::test]
async fn a_wildcard_death_is_found_by_its_hits_and_what_it_said_is_forgotten() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    let dnsbl = dnsbl(&(list("bl.test", 5) + "text = false\n"), server.address());
    dnsbl.watch(&CancellationToken::new());
    assert_eq!(report(&dnsbl, "198.51.100.1").await.score, 0);
    server.fail("bl.test", Fault::Everything([127, 0, 0, 2].into()));
    assert_eq!(report(&dnsbl, "198.51.100.2").await.score, 5, "nobody can know yet");
    drive_until("the list to be parked", &dnsbl, |dnsbl| status_of(dnsbl, "bl.test").state == "parked").await;
    let status = status_of(&dnsbl, "bl.test");
    assert!(status.hits < 100, "found soon: {status:?}");
    assert_eq!(report(&dnsbl, "198.51.100.2").await.score, 0, "the cached lie is gone too");
}

#[tokio::test]
async fn what_a_list_said_is_forgotten_too_if_its_lie_is_found_while_it_is_left_alone() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    let dnsbl = dnsbl(&(list("bl.test", 5) + "text = false\n"), server.address());
    server.fail("bl.test", Fault::Everything([127, 0, 0, 2].into()));
    assert_eq!(report(&dnsbl, "198.51.100.2").await.score, 5, "nobody can know yet");
    server.fail("bl.test", Fault::Code(2));
    drive_until("the list to be parked", &dnsbl, |dnsbl| status_of(dnsbl, "bl.test").state == "parked").await;
    server.fail("bl.test", Fault::Everything([127, 0, 0, 2].into()));
    dnsbl.lists[0].test(&dnsbl.shared).await;
    assert_eq!(status_of(&dnsbl, "bl.test").why.unwrap().0, "lists_the_world");
    server.fail("bl.test", Fault::None);
    dnsbl.lists[0].test(&dnsbl.shared).await;
    assert_eq!(status_of(&dnsbl, "bl.test").state, "asked");
    assert_eq!(report(&dnsbl, "198.51.100.2").await.score, 0, "the cached lie is gone too");
}

#[tokio::test]
async fn a_list_that_dies_while_a_thousand_clients_wait_costs_them_a_moment() {
    let server = Scripted::start(&["dying.test", "good.test"]).unwrap();
    for client in ["198.51.100.1", "198.51.100.9"] {
        server.list("good.test", client, &[[127, 0, 0, 2]]);
    }
    let dnsbl = dnsbl(&(list("dying.test", 2) + &list("good.test", 3)), server.address());
    server.fail("dying.test", Fault::Drop);
    let began = Instant::now();
    let clients: Vec<_> = (0..1000_u32)
        .map(|number| {
            let mut check = dnsbl.start(std::net::Ipv4Addr::from_bits(0xc633_6400 + number).into());
            tokio::spawn(async move { check.complete().await })
        })
        .collect();
    for client in clients {
        let report = client.await.unwrap();
        assert!(report.unknown.iter().all(|unknown| unknown.list == "dying.test"), "{report:?}");
        assert_eq!(report.unknown.len(), 1);
    }
    // The first questions run into their own time; then the list is parked and everybody is released, far from the deadline.
    let took = began.elapsed();
    assert!(took < Duration::from_millis(5500), "{took:?}");
    assert_eq!(status_of(&dnsbl, "dying.test").state, "parked");
    assert_eq!(status_of(&dnsbl, "good.test").state, "asked");
    // From now on nobody waits at all.
    let began = Instant::now();
    assert_eq!(report(&dnsbl, "198.51.100.9").await.score, 3);
    assert!(began.elapsed() < Duration::from_millis(1000));
}

#[tokio::test]
async fn a_parked_list_comes_back_by_itself() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.fail("bl.test", Fault::Code(2));
    let dnsbl = dnsbl(&list("bl.test", 3), server.address());
    dnsbl.watch(&CancellationToken::new());
    drive_until("the list to be parked", &dnsbl, |dnsbl| status_of(dnsbl, "bl.test").state == "parked").await;
    assert!(dnsbl.status().resolver_is_silent);
    server.fail("bl.test", Fault::None);
    until("the list to be asked again", &dnsbl, |dnsbl| status_of(dnsbl, "bl.test").state == "asked").await;
    assert_eq!(report(&dnsbl, "203.0.113.5").await.score, 3);
}

#[tokio::test]
async fn a_dead_resolver_costs_a_client_nothing_beyond_the_wait() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dnsbl = dnsbl(&(list("a.test", 2) + &list("b.test", -2)), nobody.local_addr().unwrap());
    let began = Instant::now();
    let said = report(&dnsbl, "203.0.113.5").await;
    assert_eq!((said.score, said.unknown.len(), said.ttl), (0, 2, None));
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
}

#[tokio::test]
async fn of_two_resolvers_the_second_is_asked_while_the_first_is_sick_and_only_then() {
    for fault in [Fault::Drop, Fault::Code(2), Fault::Code(5)] {
        let (first, second) = (Scripted::start(&["bl.test"]).unwrap(), Scripted::start(&["bl.test"]).unwrap());
        let mut config = config(&list("bl.test", 3), first.address());
        config.resolvers.push(second.address());
        let dnsbl = Dnsbl::configured(&config).unwrap().unwrap();
        let client = |number: u8| format!("203.0.113.{number}");
        for number in 1..=80 {
            first.list("bl.test", &client(number), &[[127, 0, 0, 2]]);
            second.list("bl.test", &client(number), &[[127, 0, 0, 2]]);
        }
        // The first one is slower, as one's own often is, and all the same it is the first.
        first.fail("bl.test", Fault::Delay(Duration::from_millis(20)));
        for number in 1..=20 {
            assert_eq!(report(&dnsbl, &client(number)).await.score, 3);
        }
        assert_eq!((first.questions("bl.test"), second.questions("bl.test")), (20, 0));

        first.fail("bl.test", fault);
        let at_once: Vec<_> = (21..=60).map(|number| dnsbl.start(client(number).parse().unwrap())).collect();
        let mut unknown = 0;
        for mut check in at_once {
            unknown += usize::from(check.complete().await.score == 0);
        }
        assert!(unknown < 5, "{fault:?}: {unknown} clients of 40");
        let began = Instant::now();
        for number in 61..=80 {
            assert_eq!(report(&dnsbl, &client(number)).await.score, 3, "{fault:?}");
        }
        assert!(began.elapsed() < crate::dns::TIMEOUT, "{fault:?}: somebody waited for the sick one");
        let status = dnsbl.status();
        assert_eq!((status.lists[0].state, status.lists[0].parkings), ("asked", 0), "{fault:?}: {status:?}");
        let sick: Vec<_> = status.sick_resolvers.iter().map(|sick| sick.address).collect();
        assert_eq!(sick, [first.address()]);
    }
}

#[tokio::test]
async fn a_list_that_is_dead_does_not_cost_the_first_resolver_its_place() {
    let zones = ["dead.test", "bl.test", ""];
    let (first, second) = (Scripted::start(&zones).unwrap(), Scripted::start(&zones).unwrap());
    let mut config = config(&list("dead.test", 3), first.address());
    config.resolvers.push(second.address());
    let dnsbl = Dnsbl::configured(&config).unwrap().unwrap();
    first.fail("dead.test", Fault::Code(2));
    drive_until("parked", &dnsbl, |dnsbl| status_of(dnsbl, "dead.test").state == "parked").await;
    assert!(dnsbl.status().sick_resolvers.is_empty());
    assert_eq!(second.questions("dead.test"), 0);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_comes_over_tcp() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.fail("bl.test", Fault::Truncate);
    let dnsbl = dnsbl(&(list("bl.test", 3) + "text = false\n"), server.address());
    let report = report(&dnsbl, "203.0.113.5").await;
    assert_eq!((report.score, report.unknown.len()), (3, 0), "{:?}", dnsbl.status());
}

#[tokio::test]
async fn a_wrong_id_is_not_an_answer() {
    let server = Scripted::start(&["mixed.test", "forged.test"]).unwrap();
    for zone in ["mixed.test", "forged.test"] {
        server.list(zone, "203.0.113.5", &[[127, 0, 0, 2]]);
    }
    server.fail("mixed.test", Fault::WrongId);
    server.fail("forged.test", Fault::OnlyWrongIds);
    let dnsbl = dnsbl(&(list("mixed.test", 3) + &list("forged.test", 5)), server.address());
    let report = report(&dnsbl, "203.0.113.5").await;
    assert_eq!((report.score, report.unknown.len()), (3, 1), "{:?}", dnsbl.status());
}

#[tokio::test]
async fn an_answer_after_the_deadline_still_reaches_the_cache_and_whoever_listens() {
    let server = Scripted::start(&["late.test"]).unwrap();
    server.list("late.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.fail("late.test", Fault::Delay(Duration::from_millis(700)));
    let dnsbl = dnsbl(&(list("late.test", 3) + "deadline = \"200ms\"\n"), server.address());
    let mut check = dnsbl.start("203.0.113.5".parse().unwrap());
    let began = Instant::now();
    let at_the_deadline = check.complete().await;
    assert_eq!((at_the_deadline.score, at_the_deadline.unknown.len()), (0, 1));
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    assert!(!check.is_over());
    assert_eq!(check.everything().await.score, 3);
    assert_eq!(dnsbl.start("203.0.113.5".parse().unwrap()).report().score, 3, "known at once");
    assert_eq!(status_of(&dnsbl, "late.test").questions, 1);
}

#[tokio::test]
async fn a_question_that_waits_for_its_text_does_not_close_the_next_one() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.say("bl.test", "listed");
    server.fail("bl.test", Fault::Delay(Duration::from_millis(300)));
    let dnsbl = dnsbl(&list("bl.test", 3), server.address());
    assert_eq!(report(&dnsbl, "203.0.113.5").await.score, 3, "answered, and the text is still on its way");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut again = dnsbl.start_fresh("203.0.113.5".parse().unwrap());
    let said = again.complete().await;
    assert_eq!((said.score, said.unknown.len()), (3, 0), "{said:?}");
}
