"""
A dag for Airflow that measures molecules, each in a run of its own.

In a deployment, copy it into the folder of the dags, and create the connection ``st4sd_default``. Without a deployment,
try it with a simulated one. This takes about half a minute::

    export AIRFLOW_HOME=~/airflow AIRFLOW__CORE__DAGS_FOLDER=$PWD AIRFLOW__CORE__LOAD_EXAMPLES=False
    airflow db migrate && airflow dags reserialize
    python airflow_molecules.py
"""

from __future__ import annotations

import json
import os

from airflow.sdk import DAG, task

from st4sd_async.integrations.airflow import St4sdHook, St4sdStartOperator

with DAG("st4sd_molecules", schedule=None, params={"molecules": ["CO", "CCO", "CCCO"]}) as dag:

    @task
    def inputs(params: dict[str, list[str]]) -> list[dict[str, str]]:
        """Return the input files of each run."""
        return [{"molecules.csv": f"smiles\n{molecule}\n"} for molecule in params["molecules"]]

    @task(retries=3, retry_delay=20)  # the datastore learns of a run up to 20 s after its end
    async def table(rest_uids: list[str]) -> str:
        """Return the measured properties of all runs as CSV."""
        async with St4sdHook().get_conn() as client:
            properties = await client.properties(list(rest_uids))
        return str(properties.dataframe().to_csv(index=False))

    start = St4sdStartOperator.partial(task_id="measure", experiment="demo", retries=2, retry_delay=30)
    table(start.expand(inputs=inputs()).output)


def main() -> None:
    """Run the dag in this process, against a simulated deployment."""
    from st4sd_async.local import LocalServer
    from st4sd_async.sync import Client

    with LocalServer(speed=50) as server:
        with Client(server.url, api_key=server.api_key) as client:
            client.push(server.example("demo"))
        connection = {"conn_type": "st4sd", "host": server.url, "password": server.api_key}
        os.environ["AIRFLOW_CONN_ST4SD_DEFAULT"] = json.dumps(connection)
        dag.test()


if __name__ == "__main__":
    main()
