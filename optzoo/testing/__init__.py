"""The conformance kit: promises that any gradient transformation should keep, tried out.

    from optzoo.testing import check_transformation
    print(check_transformation(my_optimizer).table())

With pytest, one test a check:

    from optzoo.testing import Subject, conformance_checks
    subject = Subject(my_optimizer)

    @pytest.mark.parametrize("check", conformance_checks, ids=str)
    def test_my_optimizer(check):
        check(subject)
"""

from optzoo.testing import checks as checks
from optzoo.testing.check import (
    Check as Check,
    DoesNotApply as DoesNotApply,
    Row as Row,
    Violation as Violation,
    check as check,
    conformance_checks as conformance_checks,
    fail as fail,
)
from optzoo.testing.coordinates import (
    CoordinateCheck as CoordinateCheck,
    coordinate_check as coordinate_check,
)
from optzoo.testing.report import (
    Report as Report,
    check_transformation as check_transformation,
    main as main,
)
from optzoo.testing.subject import Subject as Subject
from optzoo.testing.traits import Traits as Traits
