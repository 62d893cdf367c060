//! Claims about numbers, on the same small world.

use crate::world::World;

fn commits(said: &[String]) -> usize {
    said.iter().filter(|line| line.contains(": commit #")).count()
}

#[test]
fn ten_thousand_flows_take_two_hundred_and_fifty_commits_and_none_at_rest() {
    let mut world = World::new();
    for command in ["node n1", "node n2", "node n3", "coordinator n1"] {
        world.command(command);
    }
    assert_eq!(commits(&world.command("quietly flow f00001..f10000")), 250);
    assert_eq!(commits(&world.command("quietly wait 11000")), 0);
    assert_eq!(world.command("loads"), ["n1 3334, n2 3333, n3 3333"]);
    // A third of them at once: as few commits as will hold them.
    assert_eq!(commits(&world.command("quietly die n3")), 84);
    assert_eq!(world.command("loads"), ["n1 5000, n2 5000"]);
}

#[test]
fn a_joining_node_is_filled_by_the_fewest_moves_a_few_at_a_time() {
    let mut world = World::new();
    for command in ["node n1", "node n2", "node n3", "coordinator n1", "quietly flow f001..f999", "quietly node n4"] {
        world.command(command);
    }
    let mut handed_over = 0;
    for _ in 0..20 {
        let under_way = world.leaving();
        assert!(under_way <= 64, "{under_way} on their way to one node");
        handed_over += under_way;
        world.command("quietly holders");
    }
    assert_eq!((handed_over, world.leaving()), (249, 0));
    assert_eq!(world.command("loads"), ["n1 250, n2 250, n3 250, n4 249"]);
}
