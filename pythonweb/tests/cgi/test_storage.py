"""CGI scripts of the 2005 reference that use a database and an environment."""

from __future__ import annotations

from typing import Any

import pytest

Script = Any

DATABASE = """
import web, web.error; web.error.enable()
import web.database
connection = web.database.connect(adapter='ADAPTER', database='shop', autoCreate=1)
cursor = connection.cursor()
cursor.execute('CREATE TABLE IF NOT EXISTS hat (colour VARCHAR(10), size INTEGER)')
cursor.execute(sql='INSERT INTO hat (colour, size) VALUES (?, ?)', parameters=[web.cgi['colour'].value, 7])
cursor.executemany(sql='INSERT INTO hat (colour, size) VALUES (?, ?)', parameters=[('blue', 8), ('<b>', 9)])
connection.commit()
print(web.header())
cursor.execute('SELECT colour, size FROM hat ORDER BY size')
for colour, size in cursor.fetchall():
    print(f'<p>{web.encode(colour)} {size}</p>')
connection.close()
"""

ENVIRONMENT = """
import web, web.error; web.error.handle()
import web.database, web.environment, web.session
connection = web.database.connect(adapter='ADAPTER', database='shop', autoCreate=1)
cursor = connection.cursor()
environment = web.environment.driver('database', 'testEnv', cursor=cursor)
was = environment.completeEnvironment()
if not was:
    assert environment.createEnvironment() == []
driver = web.session.driver('database', environment='testEnv', cursor=cursor)
made = driver.completeSessionEnvironment()
manager = web.session.manager(driver=driver, expire=100)
if not manager.load():
    manager.create()
store = manager.store('testApp')
store['visits'] = store.get('visits', 0) + 1
connection.commit()
if web.cgi.has_key('remove'):
    assert environment.removeEnvironment(ignoreErrors=True) == []
    connection.commit()
print(web.header('text/plain'))
print(was, made, environment.completeEnvironment(), driver.completeSessionEnvironment())
connection.close()
"""

ADAPTERS = ["snakesql", "sqlite", "PySQLite"]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_database(script: Script, adapter: str) -> None:
    answer = script(DATABASE.replace("ADAPTER", adapter), QUERY_STRING="colour=red&colour=green")
    assert answer.headers == {"content-type": "text/html; charset=utf-8"}
    assert answer.body == "<p>red 7</p>\n<p>blue 8</p>\n<p>&lt;b&gt; 9</p>\n"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_environment(script: Script, adapter: str) -> None:
    text = ENVIRONMENT.replace("ADAPTER", adapter)
    first = script(text)
    assert first.body == "False True True True\n"
    cookie = first.headers["set-cookie"].partition(";")[0]
    again = script(text, HTTP_COOKIE=cookie)
    assert (again.body, again.headers.keys()) == ("True True True True\n", {"content-type"})
    assert script(text, QUERY_STRING="remove=", HTTP_COOKIE=cookie).body == "True True False False\n"
    assert script(text).body == "False True True True\n"


def test_what_fails_is_on_the_page(script: Script) -> None:
    answer = script(DATABASE.replace("ADAPTER", "sqlite").replace("INTO hat", "INTO coat"), QUERY_STRING="colour=red")
    assert answer.headers["status"] == "500 Internal Server Error"
    assert "no such table: coat" in answer.body
    answer = script(DATABASE.replace("ADAPTER", "oracle"))
    assert "there is no adapter &#x27;oracle&#x27;: use one of" in answer.body
