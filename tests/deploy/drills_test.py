"""The short form of ./sluice proof alert-drills, and its page."""

import datetime
import re
import unittest

import alert_drills
import monitoring


@unittest.skipIf(monitoring.SKIP, monitoring.SKIP)
class RewardDrillTest(alert_drills.DrillTest):
    def test_alerts_fire_while_the_reward_server_is_down_and_clear_when_it_is_back(self):
        self.set_up_cluster()
        self.drill_reward()


class PageTest(unittest.TestCase):
    def test_every_alert_is_drilled_or_says_why_not(self):
        with open(alert_drills.PAGE, encoding="utf-8") as file:
            drilled, _, others = file.read().partition("Not drilled")
        names = [[name for name in re.findall(r"\[(\w+)\]\(\.\./runbooks/", text)] for text in (drilled, others)]
        self.assertEqual(sorted(names[1]), sorted(alert_drills.NOT_DRILLED))
        self.assertEqual(sorted(names[0] + names[1]), sorted(alert.name for alert in alert_drills.alerts.ALERTS))

    def test_the_page_shows_each_drill_with_its_times(self):
        text = alert_drills.page([alert_drills.Result("a fault", "RewardUnavailable", 3.14159, 4.5)],
                                 datetime.datetime(2026, 2, 3))
        self.assertIn("2026-02-03", text)
        self.assertIn("| a fault | [RewardUnavailable](../runbooks/RewardUnavailable.md) | 3.1 s | 4.5 s | 2m |\n", text)


if __name__ == "__main__":
    monitoring.harness.main()
