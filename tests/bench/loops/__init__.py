"""The loops a Python engineer writes by hand for each job: what anabranch is measured against."""
